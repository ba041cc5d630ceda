"""The laws of merges and of codecs, tried on the built-in ones and on those of users."""

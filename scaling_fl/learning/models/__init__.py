"""The models: loaded, adapted, counted and exported."""

import logging

# On a CPU with AVX512-BF16, bitsandbytes looks for a kernel on the hub when PEFT imports it, and
# warns where there is none. It computes without the kernel.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

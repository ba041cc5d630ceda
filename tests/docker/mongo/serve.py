"""Starts the server the way the official image does: the first user, then authentication."""

import os
import subprocess
import sys
import time
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

STORAGE = Path("/data/db/secantus")
SERVER = ["secantusd-py", "--standalone", "--port", "27017", "--sync-on-commit"]
SERVER += ["--storage-path", str(STORAGE)]


def add_first_user(name: str, password: str) -> None:
    server = subprocess.Popen([*SERVER, "--host", "127.0.0.1"])
    client: MongoClient[dict[str, object]] = MongoClient("127.0.0.1", 27017)
    for _ in range(100):
        try:
            roles = [{"role": "root", "db": "admin"}]
            client.admin.command("createUser", name, pwd=password, roles=roles)
            break
        except PyMongoError as error:
            print(error, file=sys.stderr)
            time.sleep(0.2)
    server.terminate()
    server.wait()


if __name__ == "__main__":
    assert sys.argv[1:] == ["--auth"], sys.argv
    user = os.environ["MONGO_INITDB_ROOT_USERNAME"]
    if user and not STORAGE.exists():
        add_first_user(user, os.environ["MONGO_INITDB_ROOT_PASSWORD"])
    os.execvp(SERVER[0], [*SERVER, "--host", "0.0.0.0", "--auth"])

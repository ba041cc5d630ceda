from scaling_fl.commands.library import RunResult as RunResult
from scaling_fl.commands.library import RunResults as RunResults
from scaling_fl.commands.library import read_runs as read_runs
from scaling_fl.commands.library import run as run
from scaling_fl.core.errors import UserError as UserError

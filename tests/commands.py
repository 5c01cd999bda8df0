"""Commands as a user gives them, within this process."""

from fasthash.cli import main


def run(capsys, *arguments):
    """Exit status, stdout and stderr of one command."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err

"""soundssl: from unlabelled sound to a recogniser with a handful of labels, as eight composable tools."""

__version__ = "0.1.0"


class SoundsslError(Exception):
    """Say in one line what is wrong: the file, the fact, the remedy; `status` is the exit status of the command."""

    status = 1

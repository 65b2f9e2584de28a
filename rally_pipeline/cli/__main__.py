"""`python -m rally_pipeline.cli`: the command line where the script is not on the path, such as in a child process."""

from rally_pipeline.cli import main

main()

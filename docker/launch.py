"""What the launcher of a Flex Template runs. A file of its own: beside it there may be nothing to import."""

from beam_score.pipeline.flex import main

main()

#!/bin/sh
# As Kafka's own: the configuration comes first; -daemon is for those who have no container.
[ "$1" = "-daemon" ] && shift
exec sordini "$@"

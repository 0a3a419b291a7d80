#!/bin/sh
exec sordini metadata-quorum --wait "$@"

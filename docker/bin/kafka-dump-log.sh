#!/bin/sh
exec sordini dump-log "$@"

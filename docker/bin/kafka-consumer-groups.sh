#!/bin/sh
exec sordini groups "$@" --wait

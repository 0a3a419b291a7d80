#!/bin/sh
exec sordini get-offsets "$@" --wait

#!/bin/sh
exec sordini topics "$@" --wait

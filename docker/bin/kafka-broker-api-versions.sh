#!/bin/sh
exec sordini api-versions "$@" --wait

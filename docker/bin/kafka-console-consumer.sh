#!/bin/sh
exec sordini consume "$@" --wait

#!/bin/sh
exec sordini delete-records "$@" --wait

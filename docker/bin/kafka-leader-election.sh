#!/bin/sh
exec sordini leader-election "$@" --wait

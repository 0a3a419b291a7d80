#!/bin/sh
exec sordini produce "$@" --wait

#!/bin/sh
exec sordini log-dirs "$@" --wait

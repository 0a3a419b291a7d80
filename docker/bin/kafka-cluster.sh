#!/bin/sh
exec sordini cluster "$@" --wait

#!/bin/sh
exec sordini configs "$@" --wait

#!/bin/sh
exec sordini storage "$@"

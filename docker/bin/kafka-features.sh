#!/bin/sh
exec sordini features --wait "$@"

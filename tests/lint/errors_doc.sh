#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# docs/errors.md is what the generator writes.
#
#   errors_doc.sh GENERATOR docs/errors.md            compare
#   errors_doc.sh --write GENERATOR docs/errors.md    write it
set -eu
if [ "$1" = --write ]; then
	exec "$2" >"$3"
fi
"$1" | diff -u "$2" - && exit 0
echo "docs/errors.md differs from core/error.h: meson compile -C build-test errors-doc"
exit 1

#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# A sanitizer that reports and lets the test pass is worse than none. Build programs that
# are wrong on purpose and demand that each of them fails, in the environment in which
# all tests run (tests/meson.build) and with the flags of scripts/test.
#
#   sanitizers_bite.sh CC...
set -u
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

fail()
{
	echo "FAIL: $*"
	status=1
}

# build OUTPUT SOURCE FLAG...: with the compiler of this build.
build()
{
	output=$1 source=$2
	shift 2
	$cc -g -O1 -pthread "$here/$source" -o "$work/$output" "$@" || fail "$output does not build"
}

# passes NAME COMMAND...: the same build without an error passes, so it is the error that fails.
passes()
{
	name=$1
	shift
	"$@" >"$work/log" 2>&1 || { fail "$name"; cat "$work/log"; }
}

# bites NAME TEXT COMMAND...: the command fails and says TEXT.
bites()
{
	name=$1 text=$2
	shift 2
	if "$@" >"$work/log" 2>&1; then
		fail "$name passes"
	elif ! grep -q "$text" "$work/log"; then
		fail "$name fails, but not with \"$text\""
		cat "$work/log"
	fi
}

cc=$*
undefined='signed integer overflow'

build plain bite.c -fsanitize=address,undefined -fno-sanitize-recover=all
passes 'no error under ASan and UBSan' "$work/plain"
bites 'a leak' LeakSanitizer "$work/plain" leak
bites 'an overflow' heap-buffer-overflow "$work/plain" overflow
bites 'undefined behaviour' "$undefined" "$work/plain" undefined

# Who builds with -Db_sanitize alone does not have -fno-sanitize-recover.
build recover bite.c -fsanitize=undefined
bites 'undefined behaviour in a build that could go on' "$undefined" "$work/recover" undefined

build criterion bite_criterion.c -fsanitize=address,undefined -fno-sanitize-recover=all -lcriterion
passes 'no error in Criterion' "$work/criterion" --filter 'bite/nothing'
bites 'a leak in Criterion' LeakSanitizer "$work/criterion" --filter 'bite/leak'
bites 'undefined behaviour in Criterion' "$undefined" "$work/criterion" --filter 'bite/undefined'

# Some kernels place memory where this ThreadSanitizer cannot have it (vm.mmap_rnd_bits > 28).
build thread bite.c -fsanitize=thread
still=
"$work/thread" >/dev/null 2>&1 || still="setarch -R"
passes 'no error under TSan' $still "$work/thread"
bites 'a data race' 'data race' $still "$work/thread" race

exit $status

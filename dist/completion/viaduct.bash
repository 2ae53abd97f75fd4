# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2207
#
# viaduct(1) for bash-completion. Commands, options and what values an option takes come from the
# program's own help, so that nothing here has to follow it.

# Options of a command with the name of their value, if they have one: "--psk FILE"
_viaduct_options()
{
	"$1" "$2" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\)\( [^ ]\{1,\}\)\{0,1\}\( .*\)\{0,1\}$/\1\2/p'
}

# NAME, or all before the last comma and one of the fabric's keys.
_viaduct_spec()
{
	local known prefix=
	if [[ $cur == *,* ]]; then
		prefix=${cur%,*},
		known=$("$1" help fabrics | awk -v "of=keys of ${cur%%[:,]*}" -F '[ =]+' \
			'/^keys/ { here = $0 == of } here && /^  [a-z]/ { print $2 "=" }')
	else
		known="auto $("$1" fabrics 2>/dev/null | sed -n 's/^\([^ ]*\)  *yes  .*/\1/p')"
	fi
	COMPREPLY=($(compgen -P "$prefix" -W "$known" -- "${cur#"$prefix"}"))
	[[ ${COMPREPLY-} != *= ]] || compopt -o nospace
}

# A socket's path behind unix:, or a host in front of its port.
_viaduct_address()
{
	if [[ $cur == unix:* ]]; then
		local cur=${cur#unix:}
		_filedir
		COMPREPLY=("${COMPREPLY[@]/#/unix:}")
		return
	fi
	[[ $1 == --peer || $1 == --to ]] && _known_hosts_real -c -- "$cur"
	[[ $1 == --qemu || $1 == --listen && $2 == relay ]] && COMPREPLY+=($(compgen -W unix: -- "$cur"))
	compopt -o nospace
}

_viaduct_value()
{
	case $2 in
	SPEC) _viaduct_spec "$1" ;;
	FILE | SOCKET) _filedir ;;
	FOLDER) _filedir -d ;;
	ADDRESS | HOST:PORT) _viaduct_address "$prev" "${words[1]}" ;;
	*'|'*) COMPREPLY=($(compgen -W "${2//|/ }" -- "$cur")) ;;
	ROLE) COMPREPLY=($(compgen -W 'source destination' -- "$cur")) ;;
	PID) COMPREPLY=($(compgen -W "$(pgrep -x viaduct)" -- "$cur")) ;;
	esac
	__ltrim_colon_completions "$cur"
}

_viaduct()
{
	local cur prev words cword split options value known
	_init_completion -n : -s || return

	if ((cword == 1)); then
		known=$("$1" help | sed -n '/^`/q; s/^  \([a-z-]*\) .*/\1/p')
		COMPREPLY=($(compgen -W "$known help --help --version" -- "$cur"))
		return
	fi
	if [[ ${words[1]} == help ]]; then
		known=$("$1" help | sed -n 's/^  \([a-z-]*\) .*/\1/p')
		((cword > 2)) || COMPREPLY=($(compgen -W "$known" -- "$cur"))
		return
	fi
	options=$(_viaduct_options "$1" "${words[1]}")
	while read -r known value; do
		if [[ $known == "$prev" && $value ]]; then
			_viaduct_value "$1" "$value"
			return
		fi
	done <<<"$options"
	$split && return
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$(cut -d ' ' -f 1 <<<"$options")" -- "$cur"))
	elif [[ ${words[1]} == bench ]]; then
		known=$("$1" bench list 2>/dev/null | sed -n 's/^\([a-z]*\) (.*/\1/p')
		COMPREPLY=($(compgen -W "$known all list" -- "$cur"))
	fi
} && complete -F _viaduct viaduct

#compdef kubectl-ark
# zsh completion for kubectl-ark; source it after compinit, or keep it as _kubectl-ark in a directory of $fpath.

_kubectl-ark() {
    local answer directive candidate
    local -a lines described typed options
    typed=("${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}")
    answer="$(command kubectl-ark __complete "${typed[@]}" 2>/dev/null)" || return 1
    lines=("${(@f)answer}")
    directive=${lines[-1]#:}
    [[ $directive == <-> ]] || return 1
    for candidate in "${(@)lines[1,-2]}"; do
        [[ -n $candidate ]] || continue
        # A colon ends the word where zsh describes it.
        candidate=${candidate//:/\\:}
        described+=("${candidate/$'\t'/:}")
    done
    if ((directive & 2)); then options+=(-S ''); fi
    # Of --flag=value, only the value is completed.
    compset -P '-*='
    if (($#described == 0)); then
        if (((directive & 4) == 0)); then _files; return; fi
        return 1
    fi
    if ((directive & 32)); then
        _describe -V 'kubectl ark' described "${options[@]}"
    else
        _describe 'kubectl ark' described "${options[@]}"
    fi
}

if [[ ${funcstack[1]} == _kubectl-ark ]]; then
    _kubectl-ark "$@"
else
    compdef _kubectl-ark kubectl-ark
fi

# bash completion for kubectl-ark; works with and without the package bash-completion.

_kubectl_ark() {
    local line=${COMP_LINE:0:COMP_POINT} rest word i
    local -a words=()
    # bash splits at '=' and ':', too: what stands together on the line is one word.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        rest=${line#"${line%%[![:space:]]*}"}
        word=${COMP_WORDS[i]}
        # The word at the cursor ends there.
        if ((i == COMP_CWORD)); then word=$rest; fi
        if [[ $rest != "$line" || ${#words[@]} -eq 0 ]]; then
            words+=("$word")
        else
            words[${#words[@]}-1]+=$word
        fi
        line=${rest#"$word"}
    done
    # Quotes and backslashes that were typed are not part of a name.
    local cur=${words[${#words[@]}-1]}
    words=("${words[@]//[\"\'\\]/}")

    local answer directive candidate
    answer=$(command kubectl-ark __complete "${words[@]:1}" 2>/dev/null) || return
    directive=${answer##*:}
    [[ $directive =~ ^[0-9]+$ ]] || return
    answer=${answer%:*}

    # Of a word with '=' or ':', bash replaces only what comes after it.
    local cut='' value=$cur
    if [[ $cur == -*=* ]]; then value=${cur#*=}; fi
    if [[ $value == *:* && $COMP_WORDBREAKS == *:* ]]; then cut=${value%:*}:; fi
    if [[ $cur == -*=* && $COMP_WORDBREAKS != *=* ]]; then cut=; fi

    local -a candidates=() about=()
    while IFS='' read -r candidate; do
        [[ -n $candidate ]] || continue
        about+=("${candidate#"$cut"}")
        candidate=${candidate%%$'\t'*}
        candidates+=("${candidate#"$cut"}")
    done <<<"$answer"
    if ((${#candidates[@]} > 1)) && [[ ${COMP_TYPE:-9} == 63 ]]; then
        # Pressed twice: show what each is.
        local width=0
        for candidate in "${candidates[@]}"; do
            ((${#candidate} > width)) && width=${#candidate}
        done
        for i in "${!candidates[@]}"; do
            if [[ ${about[i]} == *$'\t'* ]]; then
                printf -v candidate "%-${width}s  (%s)" "${candidates[i]}" "${about[i]#*$'\t'}"
                candidates[i]=${candidate:0:${COLUMNS:-80}-1}
            fi
        done
    fi
    COMPREPLY=("${candidates[@]}")
    if ((${#candidates[@]} == 0 && (directive & 4) == 0)); then
        compopt -o filenames 2>/dev/null
        while IFS='' read -r candidate; do
            COMPREPLY+=("$candidate")
        done < <(compgen -f -- "$value")
    fi
    if ((directive & 2)); then compopt -o nospace 2>/dev/null; fi
    if ((directive & 32)); then compopt -o nosort 2>/dev/null; fi
    return 0
}

complete -F _kubectl_ark kubectl-ark

# fish completion for kubectl-ark.

function __kubectl_ark_complete
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    set -l answer (command kubectl-ark __complete $words 2>/dev/null)
    or return
    set -l directive (string replace -r '^:' '' -- $answer[-1])
    set -e answer[-1]
    # Of --flag=value, fish replaces all of it.
    set -l before (string match -r -- '^-[^=]*=' (commandline -ct); or echo '')
    for candidate in $answer
        echo -- $before$candidate
    end
    if test (count $answer) -eq 0; and string match -qr '^(0|2|32|34)$' -- $directive
        __fish_complete_path (string replace -r -- '^-[^=]*=' '' (commandline -ct))
    end
end

complete -c kubectl-ark -e
complete -c kubectl-ark -f -k -a '(__kubectl_ark_complete)'

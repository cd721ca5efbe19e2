# PowerShell completion for kubectl-ark.

Register-ArgumentCompleter -Native -CommandName 'kubectl-ark' -ScriptBlock {
    param($WordToComplete, $CommandAst, $CursorPosition)
    # The words before the cursor; the one at the cursor is cut there.
    $words = @()
    foreach ($element in $CommandAst.CommandElements | Select-Object -Skip 1) {
        if ($element.Extent.StartOffset -ge $CursorPosition) { break }
        $text = $element.Extent.Text
        if ($element.Extent.EndOffset -gt $CursorPosition) {
            $text = $text.Substring(0, $CursorPosition - $element.Extent.StartOffset)
        }
        $words += $text.Trim("'", '"')
    }
    if ($WordToComplete -eq '') {
        # Before PowerShell 7.3, an empty argument gets lost unless it is quoted.
        if ($PSVersionTable.PSVersion -lt [version]'7.3.0' -or $PSNativeCommandArgumentPassing -eq 'Legacy') { $words += '""' } else { $words += '' }
    }
    $answer = @(& kubectl-ark __complete @words 2>$null)
    if ($answer.Count -lt 1 -or $answer[-1] -notmatch '^:\d+$') { return }
    $before = if ($WordToComplete -match '^(-[^=]*=)') { $Matches[1] } else { '' }
    $answer | Select-Object -SkipLast 1 | Where-Object { $_ } | ForEach-Object {
        $name, $about = $_ -split "`t", 2
        if (-not $about) { $about = $name }
        [System.Management.Automation.CompletionResult]::new("$before$name", $name, 'ParameterValue', $about)
    }
}

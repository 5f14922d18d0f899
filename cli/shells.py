"""Completion as click has it, mended where a real shell was seen to fail.

In bash, words end at colons and equals signs, and names and files can be offered together. In zsh and fish, what is
offered takes the place of ``--option=`` too.
"""

from __future__ import annotations

import os

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' type value completion typed current before files
    typed=${COMP_LINE:0:COMP_POINT}
    current=${typed##*[[:space:]]}
    [[ $current == -*=* ]] && current=${current#*=}
    # bash replaces what follows the last colon or equals sign alone
    before=""
    [[ $COMP_WORDBREAKS == *:* ]] && before=${current%%"${current##*[:=]}"}
    COMPREPLY=()
    for completion in $(env COMP_WORDS="$typed" %(complete_var)s=bash_complete "$1"); do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) files=dirnames ;;
            file) files=default ;;
            plain) COMPREPLY+=("${value#"$before"}"); [[ $value == *= ]] && compopt -o nospace ;;
        esac
    done
    if [[ $files && ! ${COMPREPLY[*]} ]]; then
        compopt -o "$files"  # which knows quotes and spaces
    elif [[ $files ]]; then
        compopt -o filenames
        COMPREPLY+=($(compgen -f -- "$current"))
    fi
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class Bash(BashComplete):
    """As click's; the script hands over the line as it is typed, up to the cursor."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        return words[1:], incomplete


class _Whole(ShellComplete):
    """For shells that replace the word as a whole: its ``--option=`` stays."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        items = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("-"):
            for item in items:
                if item.type == "plain":
                    item.value = f"{option}={item.value}"
        return items


@add_completion_class
class Zsh(_Whole, ZshComplete):
    """As click's; files stand behind the equals sign."""

    source_template = ZshComplete.source_template.replace("_path_files", "compset -P '-*='; _path_files")


@add_completion_class
class Fish(_Whole, FishComplete):
    """As click's."""

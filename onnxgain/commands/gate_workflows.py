"""The workflows that `gate --init` writes; docs/gate.md shows the same text."""

from __future__ import annotations

import re

from onnxgain.engine.environment import VERSION

WHEEL = f"tools/onnxgain-{VERSION}-py3-none-any.whl"
"""The source that workflows install onnxgain from, unless the repository contains a wheel elsewhere."""

PYTHON = "3.12"

_GITHUB = """\
name: onnxgain
on: pull_request
permissions:
  contents: read
  pull-requests: write
env:
  ONNXGAIN: {wheel}
jobs:
  gate:
    runs-on: ubuntu-latest
{folder}    steps:
      - uses: actions/checkout@v4
        with:
          lfs: true
      - uses: actions/setup-python@v5
        with:
          python-version: "{python}"
      - run: pip install --no-compile "${{ONNXGAIN}}[cpu]"
      - run: onnxgain gate --format github --write junit=gate.xml --write markdown=gate.md
      - name: comment
        if: always()
        continue-on-error: true          # forks may not comment
        run: |
          [ -f gate.md ] || printf '<!-- onnxgain gate -->\\n\\nonnxgain gate: ERROR, see the log\\n' > gate.md
          comments="repos/$GITHUB_REPOSITORY/issues/$NUMBER/comments"
          ours='.[] | select(.user.type == "Bot" and (.body | startswith("<!-- onnxgain gate -->"))) | .url'
          comment=$(gh api --paginate "$comments" --jq "$ours" | head -n 1)
          gh api --silent ${{comment:+--method PATCH}} "${{comment:-$comments}}" -F body=@gate.md
        env:
          GH_TOKEN: ${{{{ github.token }}}}
          NUMBER: ${{{{ github.event.number }}}}
"""

_GITLAB = """\
onnxgain:
  image: python:{python}
  variables:
    ONNXGAIN: {wheel}
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
  script:
{folder}    - pip install --no-compile "${{ONNXGAIN}}[cpu]"
    - onnxgain gate --write junit=gate.xml --write markdown=gate.md
  artifacts:
    when: always
    paths: [{prefix}gate.md]
    reports:
      junit: {prefix}gate.xml
"""


def github_workflow(wheel: str = WHEEL, folder: str = "") -> str:
    """A GitHub workflow.

    Args:
        wheel: the argument of pip install, relative to the folder.
        folder: the folder of the configuration, relative to the root of the repository; empty for the root. Neither
            may contain characters that YAML or a shell interprets, see `is_plain`.
    """
    place = f"    defaults:\n      run:\n        working-directory: {folder}\n" if folder else ""
    return _GITHUB.format(wheel=f"./{wheel}", folder=place, python=PYTHON)


def gitlab_job(wheel: str = WHEEL, folder: str = "") -> str:
    """A GitLab CI job; see `github_workflow`."""
    place = f"    - cd {folder}\n" if folder else ""
    prefix = f"{folder}/" if folder else ""
    return _GITLAB.format(wheel=f"./{wheel}", folder=place, prefix=prefix, python=PYTHON)


def is_plain(name: str) -> bool:
    """Whether a path needs no quoting in a workflow."""
    return re.fullmatch(r"[\w./+-]*", name) is not None and not name.startswith("-")

"""Compare colab-constraints.txt with the list of packages that Google Colab publishes, a `pip freeze`.

`python tests/colab_versions.py pip-freeze.txt` prints a line for each package whose version differs; the exit code is
1 then. The weekly workflow fetches the list from the repository googlecolab/backend-info.
"""

import re
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("colab-constraints.txt")


def read_versions(text: str) -> dict[str, str]:
    """"Pillow==11.3.0" -> {"pillow": "11.3.0"}; of "NAME @ URL" the URL. Comments and blank lines are skipped."""
    lines = re.findall(r"^([\w.-]+) *(?:==|@) *(\S+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def differences(ours: str, colabs: str) -> list[str]:
    """A line for each package of ours, the text of the constraints, that Colab has in another version or not at all."""
    published = read_versions(colabs)
    return [
        f"{name}: {CONSTRAINTS.name} has {version}, Colab {published.get(name, 'none')}"
        for name, version in read_versions(ours).items() if published.get(name) != version
    ]  # fmt: skip


def main(path: str) -> None:
    lines = differences(CONSTRAINTS.read_text(encoding="utf-8"), Path(path).read_text(encoding="utf-8"))
    print("\n".join(lines) or f"{CONSTRAINTS.name} has Colab's versions")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])

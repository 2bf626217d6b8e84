"""Kaggle's own client, with what it lacks: timeouts, silence about secrets, and errors that say what to do."""

import contextlib
import io
import os
import sys
import zipfile
from pathlib import Path
from unittest import mock

from ..naming import named
from .archives import DownloadError, check_disk, size_text, what_is_kept

PAGE = "https://www.kaggle.com/datasets/"  # and the slug
TIMEOUT = (15, 60)  # seconds: to connect, and without a single byte afterwards
SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")


def browser_advice(slug: str) -> str:
    return f"get the zip from {PAGE}{slug} with a browser and {named('give its path as ARCHIVE')}"


def fetch_zip(slug: str, zip_path: Path) -> None:
    """Download the data set `slug` ("owner/name") to zip_path, `name.zip` in any folder.

    Resumes where an earlier call stopped. Raises DownloadError, or BadZipFile if the file is not what was announced.
    """
    _copy_colab_secrets()
    try:
        import requests

        with mock.patch.object(requests.Session, "send", _bounded_send(requests)):
            api, screen = _quiet_client(), sys.stdout
            client_download_file = api.download_file

            def download_file(response, zip_path, *args):
                size = int(response.headers.get("Content-Length") or 0)
                missing = size - (os.path.getsize(zip_path) if os.path.exists(zip_path) else 0)
                what = f"{slug}: {size_text(size) if size else 'unknown size'} to download"
                with contextlib.redirect_stdout(screen):
                    check_disk(Path(zip_path).parent, what, missing)
                return client_download_file(response, zip_path, *args)

            api.download_file = download_file
            with contextlib.redirect_stdout(io.StringIO()):  # its lines quote addresses that hold a signature
                api.dataset_download_files(slug, path=str(zip_path.parent), unzip=False, quiet=False)
    except ImportError:
        todo = f"Run `pip install kaggle` (in a notebook: `%pip install kaggle`) and {named('run the cell again')}"
        raise DownloadError("Python finds no package 'kaggle'", todo) from None
    except requests.RequestException as error:  # first: it is an OSError, and some of its kinds are ValueErrors
        raise DownloadError(*_explain(error, slug), what_is_kept(zip_path.parent)) from None
    except (ValueError, KeyError) as error:  # another size than announced; none at all, which older clients need
        raise zipfile.BadZipFile(str(error)) from None


def _copy_colab_secrets() -> None:
    """Colab's secrets, which Kaggle's client does not read, to this process's environment; each may be missing."""
    with contextlib.suppress(ImportError):
        from google.colab import userdata
        for name in SECRETS:
            with contextlib.suppress(Exception):  # not there, or this notebook may not read it
                if name not in os.environ:
                    os.environ[name] = userdata.get(name)


def _bounded_send(requests):
    """`Session.send` with a timeout, which Kaggle's client forgets, and without error pages in a resumed file."""
    send = requests.Session.send

    def bounded_send(session, request, **options):
        response = send(session, request, **{**options, "timeout": TIMEOUT})
        if "Range" in request.headers and response.status_code >= 400 and response.status_code != 416:
            response.close()  # the client would write this page into the zip; on this error it tries again
            raise requests.ConnectionError(f"status {response.status_code}")
        return response

    return bounded_send


def _quiet_client():
    """Kaggle's client. Without credentials its import prints a help page, closes sys.stdin and wants to exit."""
    aside = mock.patch.object(sys, "stdin", io.StringIO())
    with aside, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            from kaggle.api.kaggle_api_extended import KaggleApi
        except (SystemExit, NameError):  # older clients, Colab's 2.0.2 too: the import gives up, but it is loaded
            KaggleApi = sys.modules["kaggle.api.kaggle_api_extended"].KaggleApi
        api = KaggleApi()
        with contextlib.suppress(Exception, SystemExit):  # then the request is anonymous, and the server decides
            api.authenticate()
    return api


def _explain(error, slug: str) -> tuple[str, str]:
    again, status = named("run the cell again"), getattr(error.response, "status_code", 0)
    what, todo = {
        0: ("The connection to Kaggle failed or stopped", f"Check the network and {again}"),
        401: ("Kaggle wants to know who you are, and got no valid credentials",
              "Make a new API token at https://www.kaggle.com/settings (an account is free) and put it into the "
              "environment variable or Colab secret KAGGLE_API_TOKEN"),
        403: (f"Kaggle does not let you have {slug}", f"Log in at {PAGE}{slug}, accept the terms, and {again}"),
    }.get(status, (f"Kaggle does not send {slug}", f"{again.capitalize()} later"))  # fmt: skip
    return f"{what} ({status})" if status else what, f"{todo}, or {browser_advice(slug)}"

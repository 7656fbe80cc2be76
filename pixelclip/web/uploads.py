"""What a browser may name as its picture: a file that was uploaded to the page, and nothing else.

What a browser sends is under the control of whoever sends it: Gradio checks the path of a picture
only where the message says of itself that it names a file, and fetches a path that is an address.
"""

import os
import stat
from typing import Any

from pixelclip.web.request import RequestError

_NOT_UPLOADED = "This picture was not uploaded to this page: choose a file, or click an example."


def find_upload(path: str | None, folder: str) -> str | None:
    """The real path of an uploaded file; whether it is still there is not asked.

    Args:
        path: as the browser sent it; None means no picture.
        folder: of the uploads.

    Raises:
        RequestError: the path leads out of the folder, also over a link, or to something that is
            no regular file.
    """
    if path is None:
        return None
    try:
        found = os.path.realpath(path)
        is_below = os.path.commonpath([found, os.path.realpath(folder)]) == os.path.realpath(folder)
        is_usable = is_below and stat.S_ISREG(os.stat(found).st_mode)
    except FileNotFoundError:
        is_usable = is_below
    except (OSError, ValueError):  # too long, or with a zero byte
        is_usable = False
    if not is_usable:
        raise RequestError(_NOT_UPLOADED)
    return found


def refuse_addresses(component: Any) -> None:
    """Make a component of Gradio refuse to fetch what a browser names by an address.

    Any component has to: Gradio looks for files in whatever a browser sends for it.
    """
    move_to_cache = component.async_move_resource_to_block_cache

    async def move_files_only(path: Any) -> Any:
        if path is not None and str(path).lower().startswith(("http:", "https:")):
            raise RequestError(_NOT_UPLOADED)
        return await move_to_cache(path)

    component.async_move_resource_to_block_cache = move_files_only

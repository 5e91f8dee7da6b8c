"""A page as a phone shows it, in Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def in_a_phone(page: str, folder: Path) -> list[object]:
    """What a browser finds in a frame as wide as a phone: pixels beyond it, pictures, whether a payload ran, films."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert free != page
    held = json.dumps(free).replace("<", "\\u003c")
    script = f"""
        const frame = document.createElement("iframe");
        frame.style = "width: 390px; height: 800px; border: 0";
        frame.onload = () => setTimeout(() => {{
          const inside = frame.contentDocument, root = inside.documentElement;
          document.title = JSON.stringify([root.scrollWidth - root.clientWidth, inside.images.length, !!window.ran,
            inside.getAnimations().length]);
        }}, 300);
        frame.srcdoc = {held};
        document.body.append(frame);"""
    outer = f"<!doctype html><meta charset=utf-8><title></title><body><script>{script}</script>"
    (folder / "phone.html").write_text(outer)
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--virtual-time-budget=3000", "--dump-dom", (folder / "phone.html").as_uri()]  # fmt: skip
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return json.loads(re.findall("<title>(.*?)</title>", shown)[0])

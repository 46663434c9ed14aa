"""Pictures of translations: what attention looks at, and scores by length.

Attention is that of the first model as it writes its own translations. Besides the
pictures, `alignments.html` shows every head, `alignments.npz` holds every alpha and
`tokens.json` what its rows and columns stand for.
"""

import html
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.ticker import MaxNLocator

from engram.tasks.translation import MARK, SIDES

INK, SOFT, MODEL = "#1f2933", "#9aa5b1", "#0b7285"
COLOURS = "GnBu"  # of alpha, 0 to 1: ever darker, so also without colour vision
LEAST = 0.005  # alpha that the page draws
LONG = 60  # tokens of a side that a picture shows; the page shows all
CELL, LETTER = 15, 7.4  # of the page: pixels of a square, and of a letter's width
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
ABOUT = (
    "<p class=soft>A row is a token of the translation, as the model writes it; a column"
    " is a token of the source. The stronger a square, the more of its attention (alpha,"
    " 0 to 1; point at a square to read it). A dot stands before a piece that goes on"
    " with a word. Attention says where a model looks, not why it decides.</p>"
)
STYLE = """
:root{--ink:#1f2933;--soft:#5c6975;--paper:#fff;--line:#d5dbe1;--cell:#0b4f8a}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ed;--soft:#9aa7b1;--paper:#14191e;
--line:#3b464f;--cell:#8fc7ff}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}.soft{color:var(--soft);max-width:46rem}
summary{cursor:pointer;padding:.2rem 0}details details{margin-left:1.2rem}
.sentence{border-top:1px solid var(--line);padding:.4rem 0}
.sentence>summary{font-weight:bold}
.maps{display:flex;flex-wrap:wrap;gap:.6rem 1.4rem;overflow-x:auto;padding:.4rem 0}
figure{margin:0}figcaption{color:var(--soft);font-size:.85rem;text-align:center}
svg{font-size:11px;fill:var(--ink)}rect{width:15px;height:15px;fill:var(--cell)}
path{fill:none;stroke:var(--line)}
"""


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"scores_by_length": by_length(found)}
    if found.get("history"):
        drawings["loss_curves"] = loss_curves(found)
    looks = bool(found["shown"][0]["alpha"])
    if looks:
        drawings |= {"attention": attention(found), "heads": heads(found)}
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return [*files, *numbers(found, folder), page(found, folder)] if looks else files


def attention(found: dict[str, Any]) -> plt.Figure:
    """Where the model looks in a few sentences, mean over all heads of all attentions."""
    shown = found["shown"]
    sizes = [[min(LONG, len(one[side])) for one in shown] for side in SIDES]
    columns = 2 if len(shown) > 1 else 1
    lines = -(-len(shown) // columns)
    wide, high = (0.26 * max(of) + 1.1 for of in sizes)
    size = (max(6.0, columns * wide + 0.9), lines * (high + 0.3) + 0.5)
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained")
    panels = np.atleast_1d(axes).ravel()
    for axis, one in zip(panels, shown, strict=False):
        image = _map(axis, one, _mean(one))
    for axis in panels[len(shown) :]:
        axis.axis("off")
    figure.supxlabel("source", fontsize=10, color=INK)
    figure.supylabel("translation", fontsize=10, color=INK)
    figure.colorbar(image, ax=axes, label="alpha", shrink=0.5, aspect=30)
    what = f"Attention, mean over heads, {_plain(found['spec']['dataset'])}"
    figure.suptitle(what, color=INK, fontsize=11)
    return figure


def heads(found: dict[str, Any]) -> plt.Figure:
    """Where each head looks in one sentence: a row for each attention."""
    one, rows = found["shown"][0], list(found["shown"][0]["alpha"].items())
    most = max(len(alpha) for _, alpha in rows)
    tokens = [min(LONG, len(one[side])) for side in SIDES]
    wide, high = (min(3.2, max(1.5, 0.14 * n)) for n in tokens)
    size = (most * wide + 2.2, len(rows) * (high + 0.25) + 1.6)
    figure, axes = plt.subplots(
        len(rows), most, figsize=size, layout="constrained", squeeze=False
    )
    for row, (name, alpha) in enumerate(rows):
        for head, axis in enumerate(axes[row]):
            if head >= len(alpha):
                axis.axis("off")
                continue
            last = row == len(rows) - 1 or head >= len(rows[row + 1][1])
            image = _map(axis, one, alpha[head], across=last, down=head == 0, size=6)
            axis.set_title(f"{_plain(name)}, head {head + 1}", fontsize=7.5, color=INK)
    figure.supxlabel("source", fontsize=9, color=INK)
    figure.supylabel("translation", fontsize=9, color=INK)
    figure.colorbar(image, ax=axes, label="alpha", shrink=0.6, aspect=30)
    return figure


def _map(
    axis: plt.Axes,
    one: dict[str, Any],
    alpha: np.ndarray,
    across: bool = True,
    down: bool = True,
    size: float = 8,
) -> Any:
    """Draws alpha `(T, S)` of a sentence, its tokens at the sides where asked."""
    image = axis.imshow(alpha[:LONG, :LONG], cmap=COLOURS, vmin=0, vmax=1)
    columns, rows = ([_drawn(_label(t)) for t in one[k][:LONG]] for k in SIDES)
    axis.set_xticks(range(len(columns)), columns if across else [""] * len(columns))
    axis.set_yticks(range(len(rows)), rows if down else [""] * len(rows))
    axis.tick_params(length=0, labelsize=size, labelcolor=INK, pad=1.5)
    axis.tick_params(axis="x", labelrotation=90)
    axis.spines[:].set(color=SOFT, lw=0.6)
    return image


def by_length(found: dict[str, Any]) -> plt.Figure:
    """BLEU and exact sentences by the length of the source, mean over seeds."""
    curves = found["details"]["curves"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, curve in zip(axes, curves, strict=True):
        axis.plot(curve["x"], curve["y"], "o-", color=MODEL)
        axis.set(ylim=(-3, 103), xlabel=curve["x_label"], ylabel=curve["y_label"])
        axis.set_title(curve["title"], loc="left", color=INK, fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def loss_curves(found: dict[str, Any]) -> plt.Figure:
    """Loss by epoch on training and validation part, a line for each seed."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    lines = {"loss": ("training part", SOFT), "val_loss": ("validation part", MODEL)}
    for key, (label, colour) in lines.items():
        for history in found["history"].values():
            losses = history.get(key, [])
            axis.plot(range(1, len(losses) + 1), losses, ".-", ms=4, color=colour)
        axis.plot([], [], ".-", ms=4, color=colour, label=label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch", ylabel="loss, nats a token")
    title = f"Loss of each seed, {_plain(found['spec']['dataset'])}"
    axis.set_title(title, loc="left", color=INK)
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def numbers(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes alpha `(H, T, S)` of each sentence and attention, and their tokens."""
    files = [folder / "alignments.npz", folder / "tokens.json"]
    shown = found["shown"]
    alphas = {
        f"{n}.{name}": alpha
        for n, one in enumerate(shown)
        for name, alpha in one["alpha"].items()
    }
    np.savez(files[0], allow_pickle=False, **alphas)
    tokens = [{k: v for k, v in one.items() if k != "alpha"} for one in shown]
    text = json.dumps(tokens, indent=2, ensure_ascii=False)
    files[1].write_text(text + "\n", encoding="utf-8")
    return files


def page(found: dict[str, Any], folder: Path) -> Path:
    """Writes a page that needs no network and no script: every head of each sentence."""
    name = html.escape(found["spec"]["dataset"])
    body = [f"<h1>Where attention looks: {name}</h1>", ABOUT]
    for n, one in enumerate(found["shown"]):
        said = {k: html.escape(one[k]) for k in ("given", "told", "reference")}
        maps = [_folded("mean over all heads", [_svg(one, _mean(one), "mean")], True)]
        for title, alpha in one["alpha"].items():
            drawn = [_svg(one, a, f"head {h}") for h, a in enumerate(alpha, start=1)]
            maps.append(_folded(title, drawn, False))
        body.append(
            f"<details class=sentence{' open' if n == 0 else ''}><summary>{said['given']}"
            f"</summary><p>Translation: <b>{said['told']}</b><br>"
            f"Reference: {said['reference']}</p>{''.join(maps)}</details>"
        )
    head = (
        f'<meta charset="utf-8"><title>Alignments, {name}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<style>{STYLE}</style>"
    )
    text = f'<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body)
    file = folder / "alignments.html"
    file.write_text(f"<!doctype html>\n{text}\n</body></html>\n", encoding="utf-8")
    return file


def _folded(title: str, maps: list[str], opened: bool) -> str:
    state = " open" if opened else ""
    summary = f"<summary>{html.escape(title)}</summary>"
    return f"<details{state}>{summary}<div class=maps>{''.join(maps)}</div></details>"


def _svg(one: dict[str, Any], alpha: np.ndarray, title: str) -> str:
    """Returns alpha `(T, S)` as squares, the stronger the more; each tells its number."""
    columns, rows = ([_label(token) for token in one[side]] for side in SIDES)
    left, top = (10 + LETTER * max(map(len, of)) for of in (rows, columns))
    parts = []
    for place, label in enumerate(columns):
        at = f"translate({left + CELL * (place + 0.7):.1f} {top - 4:.0f}) rotate(-90)"
        parts.append(f'<text transform="{at}">{html.escape(label)}</text>')
    for place, label in enumerate(rows):
        at = f'x="{left - 4:.0f}" y="{top + CELL * (place + 0.7):.1f}"'
        parts.append(f'<text {at} text-anchor="end">{html.escape(label)}</text>')
    for t, s in np.argwhere(alpha >= LEAST):
        x, y = left + CELL * s, top + CELL * t
        said = f"{rows[t]} from {columns[s]}: {alpha[t, s]:.2f}"
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" opacity="{alpha[t, s]:.2f}">'
            f"<title>{html.escape(said)}</title></rect>"
        )
    wide, high = left + CELL * len(columns) + 1, top + CELL * len(rows) + 1
    frame = (
        f'<path d="M{left:.0f} {top:.0f}h{CELL * len(columns)}v{CELL * len(rows)}'
        f'h-{CELL * len(columns)}z"/>'
    )
    return (
        f'<figure><svg width="{wide:.0f}" height="{high:.0f}" role="img"'
        f' aria-label="alpha, {title}">{frame}{"".join(parts)}</svg>'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _mean(one: dict[str, Any]) -> np.ndarray:
    """Returns alpha `(T, S)`, mean over all heads of all attentions."""
    return np.concatenate(list(one["alpha"].values())).mean(0)


def _label(piece: str) -> str:
    """Returns a piece without the mark before a word, or with a dot where it goes on."""
    if piece == "</s>":
        return "<end>"
    return (piece.removeprefix(MARK) or MARK) if piece.startswith(MARK) else f"·{piece}"


def _drawn(text: str) -> str:
    """Returns text of signs that the font has, which is not to be drawn as a formula."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    known = font.get_charmap()
    return _plain("".join(sign if ord(sign) in known else "□" for sign in text))


def _plain(text: str) -> str:
    """Returns text that matplotlib draws as it stands."""
    return text.replace("$", r"\$")

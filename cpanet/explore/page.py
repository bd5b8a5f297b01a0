"""The page: what stands where, and which change leads to which call of the session. Import after ``import_gradio``."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import gradio as gr
import numpy as np
from starlette.middleware import Middleware

from cpanet.data.images import ValueRange, value_range_of
from cpanet.errors import UserError
from cpanet.explore import arrays
from cpanet.explore.session import Prediction, QueryPicture, Session, Support
from cpanet.files import write_atomically
from cpanet.records import pictures

INTRODUCTION = """# {title}
Paint the defect on a support picture, or load its mask, and give queries. The prediction follows every change.
{data}"""
# as many pictures in a row as there is room for; a label above its picture, not on it
STYLE = """
.gallery-container .grid-container { grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)) !important; }
#overlays .grid-wrap, #mask .image-container, #probability .image-container, #similarity .image-container,
#episode .image-container { padding-top: 30px; box-sizing: border-box; }
"""
PAINT = "rgba({}, {}, {}, 0.6)".format(*arrays.PAINT[:3])
THRESHOLD = 0.5
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
MAPS = {"mask": "Mask", "probability": "Probability", "similarity": "Similarity to the prototype"}


def build_page(session: Session, folder: Path, title: str) -> Any:
    """The page of ``session``; files to download are written below ``folder``."""
    answers = Answers(session, folder)
    data = (
        f"Pictures come from the data set {session.dataset.name} or from your disk."
        if session.dataset is not None
        else "There is no data set here: pictures come from your disk."
    )
    with gr.Blocks(title=f"CPANet: {title}", analytics_enabled=False) as app:
        kept, results, chosen = gr.State([]), gr.State([]), gr.State([])
        selected, support, value_range = gr.State(0), gr.State(None), gr.State(None)
        gr.Markdown(INTRODUCTION.format(title=title, data=data))
        with gr.Row():
            with gr.Column():
                editor = gr.ImageEditor(
                    type="numpy",
                    image_mode="RGBA",
                    label="Support: paint the defect",
                    sources=(),
                    brush=gr.Brush(default_size=12, colors=[PAINT], color_mode="fixed"),
                    layers=False,
                    transforms=(),
                    format="png",
                    height=420,
                    elem_id="support",
                )
                mask_text = gr.Markdown(answers.describe_mask(None, None), elem_id="mask-text")
                with gr.Row():
                    support_file = upload("Support picture", "support-file")
                    mask_file = upload("Its mask (255 is defect), or paint", "mask-file", MASK_SUFFIXES)
                    with gr.Column():
                        anew = gr.Button("Take the mask away", elem_id="anew")
                        keep = gr.Button("Keep this support, start another", elem_id="keep")
                        clear = gr.Button("Forget kept supports", elem_id="clear")
                        kept_text = gr.Markdown(answers.describe_kept([]), elem_id="kept")
            with gr.Column():
                uploads = upload("Queries", "queries", file_count="multiple")
                threshold = gr.Slider(
                    0.01,
                    0.99,
                    THRESHOLD,
                    step=0.01,
                    label="Threshold of the probability",
                    elem_id="threshold",
                )
                status = gr.Markdown(answers.nothing([], []), elem_id="status")
                label = "Predictions: red (truth, where known: green)"
                overlays = gallery(label=label, columns=4, height=240, elem_id="overlays")
                with gr.Row():
                    shown = [image(label=label, height=220, elem_id=name) for name, label in MAPS.items()]
                download = gr.DownloadButton(
                    "Download all masks (ZIP)", interactive=False, elem_id="download"
                )
        if session.dataset is not None:
            with gr.Accordion("Pictures of the data set, masks outlined in green", open=True), gr.Row():
                with gr.Column(scale=1, min_width=200):
                    classes = [(c + (" (unseen)" if c in session.unseen else ""), c) for c in session.classes]
                    class_name = gr.Dropdown(
                        classes, value=session.classes[0], label="Class", elem_id="class"
                    )
                    role = gr.Radio(
                        ["support", "query"], value="support", label="A click takes it as", elem_id="role"
                    )
                    no_queries = gr.Button("Forget chosen queries", elem_id="no-queries")
                library = rows(answers.library(session.classes[0]), "library", scale=5)
        if session.episodes and session.dataset is not None:
            with gr.Accordion("Test episodes of this run, worst first, with the recorded IoU", open=True):
                epochs = list(session.episodes)
                first = epochs[0]
                which = gr.Radio(epochs, value=first, label="Epoch", elem_id="which")
                table = rows(answers.rows(first), "episodes")
                episode_text = gr.Markdown(
                    "A click on an episode shows it here and takes its pictures over above."
                )
                episode = image(label="support | query, truth | prediction", height=240, elem_id="episode")

        inputs = [editor, support, kept, uploads, chosen, threshold, value_range]
        outputs = [results, selected, status, overlays, *shown, download]
        view = [status, overlays, *shown, download]
        changes = [editor.change, support.change, uploads.change, kept.change, chosen.change]
        follow = functools.partial(gr.on, trigger_mode="always_last")
        follow(changes, answers.segment, inputs, outputs, show_progress="minimal")
        follow(threshold.change, answers.view, [results, selected, threshold], view, show_progress="hidden")
        overlays.select(answers.select, [results, threshold], [selected, *view], show_progress="hidden")
        follow(changes[:2], answers.describe_mask, [editor, support], [mask_text], show_progress="hidden")
        opened = [editor, support, support_file, value_range]
        support_file.upload(answers.open_support, [support_file, value_range], opened)
        mask_file.upload(answers.load_mask, [support, mask_file], [editor, support, mask_file])
        anew.click(answers.take_mask_away, [support], [editor, support])
        keep.click(answers.keep, [editor, support, kept], [editor, support, kept, kept_text])
        clear.click(answers.forget, None, [kept, kept_text])
        if session.dataset is not None:
            class_name.change(answers.library, [class_name], [library])
            library.select(answers.take, [class_name, role, chosen], [editor, support, chosen])
            no_queries.click(list, None, [chosen])
        if session.episodes and session.dataset is not None:
            which.change(answers.rows, [which], [table])
            taken = [episode_text, episode, editor, support, kept, kept_text, chosen]
            table.select(answers.episode, [which], taken)
    return app


class OwnAddressOnly:
    """Tells the browser to load nothing but what this server hands out, whatever Gradio's page may ask for."""

    POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", self.POLICY.encode()),
                ]
            await send(message)

        await self.app(scope, receive, with_policy)


def upload(label: str, name: str, suffixes: Sequence[str] = arrays.IMAGE_SUFFIXES, **options: Any) -> Any:
    """A field for files."""
    return gr.File(label=label, file_types=list(suffixes), height=140, elem_id=name, **options)


def gallery(**options: Any) -> Any:
    """Pictures side by side, to click on."""
    fixed = {"object_fit": "contain", "format": "png", "allow_preview": False, "fit_columns": False}
    return part(gr.Gallery, **fixed, buttons=[], interactive=False, **options)


def rows(shown: Sequence[Any], name: str, **options: Any) -> Any:
    """Rows of pictures to choose from, with their names."""
    return gallery(value=shown, show_label=False, columns=10, height=260, elem_id=name, **options)


def image(**options: Any) -> Any:
    """A picture, to look at and to save."""
    return part(gr.Image, buttons=["download", "fullscreen"], format="png", interactive=False, **options)


def part(kind: Callable[..., Any], **options: Any) -> Any:
    """``kind(**options)`` without the options that this Gradio does not have."""
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in options.items() if name in known})


def launch(app: Any, host: str, port: int, max_upload_mb: int, browser: bool) -> str:
    """Serve ``app`` in threads of its own; returns its address."""
    _, address, _ = part(
        app.queue().launch,
        server_name=host,
        server_port=port,
        max_file_size=max_upload_mb * 2**20,
        inbrowser=browser,
        share=False,
        quiet=True,
        css=STYLE,
        show_error=True,
        prevent_thread_lock=True,
        footer_links=[],
        ssr_mode=False,
        run_history=False,
        app_kwargs={"middleware": [Middleware(OwnAddressOnly)]},
        pwa=False,
    )
    return str(address)


def told(answer: Callable[..., Any]) -> Callable[..., Any]:
    """``answer`` with its :class:`UserError` shown on the page."""

    @functools.wraps(answer)
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        try:
            return answer(*arguments, **keywords)
        except UserError as error:
            raise gr.Error(str(error)) from error

    return wrapped


class Answers:
    """A method for each thing that happens on the page; values in, values for the page's parts out."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.session, self.folder = session, folder
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True)

    @told
    def segment(
        self,
        editor: dict[str, Any] | None,
        support: Support | None,
        kept: Sequence[Support],
        uploads: Sequence[str] | None,
        chosen: Sequence[str],
        threshold: float,
        value_range: ValueRange = None,
    ) -> list[Any]:
        """Predict all queries from the kept supports and the one in the editor, and show the first."""
        supports = [*kept, *self._edited(editor, support)]
        queries = [self.session.query(name) for name in chosen]
        if uploads and value_range is None:
            value_range = value_range_of(map(Path, uploads))
        queries += [
            QueryPicture(Path(path).name, arrays.read_picture(path, value_range)) for path in uploads or ()
        ]
        results = self.session.segment(supports, queries)
        if not results:
            no_file = gr.DownloadButton(value=None, interactive=False)
            return [[], 0, self.nothing(supports, queries), [], None, None, None, no_file]
        return [results, 0, *self.view(results, 0, threshold)]

    def view(self, results: Sequence[Prediction], selected: int, threshold: float) -> list[Any]:
        """The results at a threshold: status, overlays, mask, probability, similarity, file of all masks."""
        if not results:
            return [gr.skip() for _ in range(6)]
        result = results[min(selected, len(results) - 1)]
        return [
            result.sentence(threshold),
            [(r.overlay(threshold), Path(r.query.name).stem) for r in results],
            arrays.grey(result.mask(threshold)),
            arrays.grey(result.probability),
            arrays.coloured(result.similarity),
            gr.DownloadButton(value=str(self._write(results, threshold)), interactive=True),
        ]

    def select(self, results: Sequence[Prediction], threshold: float, event: gr.SelectData) -> list[Any]:
        """Show the result that was clicked on."""
        return [int(event.index), *self.view(results, int(event.index), threshold)]

    @told
    def open_support(self, path: str, value_range: ValueRange) -> list[Any]:
        """A support's picture from a file, without a mask; the first of more than 8 bits sets the range for all."""
        value_range = value_range or value_range_of([Path(path)])
        picture = arrays.read_picture(path, value_range)
        opened = Support(picture, np.zeros(picture.shape[:2], bool))
        return [arrays.to_editor(*opened), opened, None, value_range]

    @told
    def load_mask(self, support: Support | None, path: str) -> list[Any]:
        """The mask of a file, in place of what was painted on the support."""
        if support is None:
            raise UserError("There is no support yet: choose or upload the picture first, then its mask.")
        masked = Support(support.picture, arrays.read_mask(path, support.mask.shape))
        return [arrays.to_editor(*masked), masked, None]

    def take_mask_away(self, support: Support | None) -> list[Any]:
        """The support without its mask, to paint it anew."""
        if support is None:
            return [None, None]
        bare = Support(support.picture, np.zeros_like(support.mask))
        return [arrays.to_editor(*bare), bare]

    @told
    def keep(
        self, editor: dict[str, Any] | None, support: Support | None, kept: Sequence[Support]
    ) -> list[Any]:
        """Put the editor's support aside, for a prototype of several."""
        edited = self._edited(editor, support)
        if not edited or not edited[0].mask.any():
            raise UserError("Paint the defect first: a support without a mask says nothing.")
        kept = [*kept, *edited]
        return [None, None, kept, self.describe_kept(kept)]

    def forget(self) -> list[Any]:
        """No kept supports."""
        return [[], self.describe_kept([])]

    def library(self, class_name: str) -> list[Any]:
        """Pictures of a class."""
        return [(picture, Path(name).stem) for picture, name in self.session.pictures(class_name)]

    @told
    def take(self, class_name: str, role: str, chosen: Sequence[str], event: gr.SelectData) -> list[Any]:
        """The picture that was clicked on as the support, or as one more query (a second click takes it away)."""
        name = self.session.pictures(class_name)[int(event.index)][1]
        if role == "support":
            support = self.session.support(name)
            return [arrays.to_editor(*support), support, gr.skip()]
        return [
            gr.skip(),
            gr.skip(),
            [n for n in chosen if n != name] if name in chosen else [*chosen, name],
        ]

    def rows(self, which: str) -> list[Any]:
        """The queries of a run's episodes, worst first."""
        return [
            (self.session.outlined(record.query), f"{record.iou:.2f} {Path(record.query).stem}")
            for record in self.session.episodes[which]
        ]

    @told
    def episode(self, which: str, event: gr.SelectData) -> list[Any]:
        """The episode that was clicked on: shown as the evaluation marks it, and taken over as support and query."""
        record = self.session.episodes[which][int(event.index)]
        supports = [self.session.support(name) for name in record.supports]
        query = self.session.query(record.query)
        mask, iou = self.session.repeat(record)
        truth = query.truth if query.truth is not None else mask
        figure = pictures.EpisodeFigure(*supports[0], query.picture, truth, mask, record.query)
        text = (
            f"**{record.class_name}**, {record.query}: {self.session.compared(which, record, iou)}. "
            "(Marked as the evaluation does; above the page's own threshold holds.)"
        )
        rest = supports[1:]
        return [
            text,
            pictures.strip(figure),
            arrays.to_editor(*supports[0]),
            supports[0],
            rest,
            self.describe_kept(rest),
            [record.query],
        ]

    def describe_mask(self, editor: dict[str, Any] | None, support: Support | None) -> str:
        """How many pixels of the support are marked."""
        if support is None:
            return "No support yet: upload one, or click on a picture of the data set."
        mask = support.mask | arrays.painted(editor, support.mask.shape)
        return f"{np.count_nonzero(mask):,} of {mask.size:,} pixels of the support are marked as defect"

    def describe_kept(self, kept: Sequence[Support]) -> str:
        """How many supports are put aside."""
        return f"{len(kept)} kept beside the one being painted"

    def nothing(self, supports: Sequence[Support], queries: Sequence[QueryPicture]) -> str:
        """Names what a prediction still needs."""
        if not any(support.mask.any() for support in supports):
            return "Missing: a support with a painted defect." if supports else "Missing: a support."
        return "Missing: a query." if not queries else ""

    def _edited(self, editor: dict[str, Any] | None, support: Support | None) -> list[Support]:
        """The support with what has been painted on it since."""
        if support is None:
            return []
        return [Support(support.picture, support.mask | arrays.painted(editor, support.mask.shape))]

    def _write(self, results: Sequence[Prediction], threshold: float) -> Path:
        path = self.folder / f"{next(self._numbers)}" / "masks.zip"
        path.parent.mkdir()
        masks = ((r.query.name, r.mask(threshold), r.probability) for r in results)
        write_atomically(path, arrays.archive(masks))
        return path

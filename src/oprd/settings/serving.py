"""Settings of a teacher that reads on an inference server."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from trl.trainer.distillation_config import DistillationConfig

from oprd.core.layers import measures
from oprd.settings.bridge import FIT

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig

SERVER = "server"
WANTED = ("teacher_server_url", "teacher_server_folder", "teacher_model_name_or_path")
# What describes a model that is loaded here.
OF_A_MODEL_HERE = ("teacher_model_init_kwargs", "teacher_base_model_name_or_path")


@dataclass
class ServedTeacherConfig(DistillationConfig):
    """Where a teacher with teacher_source "server" reads.

    Args:
        teacher_server_url: of a server of vLLM's that runs `oprd.serving.connector`, such as
            http://127.0.0.1:8000.
        teacher_server_folder: into which that connector writes, as this machine sees it.
        teacher_server_timeout: seconds until a server that does not answer stops the run.
    """

    teacher_server_url: str | None = field(
        default=None, metadata={"help": "Of the server of teacher_source='server'."}
    )
    teacher_server_folder: str | None = field(
        default=None, metadata={"help": "Where that server writes states, as seen from here."}
    )
    teacher_server_timeout: float = field(
        default=600.0, metadata={"help": "Seconds until a silent server stops the run."}
    )


def check_serving(args: "OPRDConfig") -> None:
    """Refuse, with a ValueError, what a teacher on a server needs and lacks, or cannot do."""
    if args.teacher_source != SERVER:
        given = [name for name in WANTED[:2] if getattr(args, name) is not None]
        if given:
            raise ValueError(f"{given[0]} is for teacher_source='server': set that, or leave it.")
        return
    for name in WANTED:
        if getattr(args, name) is None:
            raise ValueError(
                f"teacher_source='server' needs {name}: {', '.join(WANTED)} say where it reads, "
                "where its states come, and which checkpoint it serves."
            )
    address = urlsplit(cast(str, args.teacher_server_url))
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(
            f"teacher_server_url must be like http://127.0.0.1:8000, got "
            f"{args.teacher_server_url!r}."
        )
    for name in OF_A_MODEL_HERE:
        if getattr(args, name) is not None:
            raise ValueError(
                f"{name} is for a teacher that is loaded here: leave it out with "
                "teacher_source='server'."
            )
    if measures(args.layer_pairing) or any(o.bridge == FIT for o in args.objectives()):
        raise ValueError(
            "bridge='fit' and a layer_pairing that is measured read the teacher beforehand, and "
            "this one reads on a server: fit a bridge with `oprd bridge fit`, and name it and its "
            "pairs."
        )
    if args.extrapolates:
        raise ValueError("extrapolation needs a teacher that is loaded here: leave it out.")

"""Jobs whose base moves: evaluated, exported and continued with the base as it has become."""

from pathlib import Path
from typing import Any

import pytest
import torch
from one_process import QuickRun
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from scaling_fl.commands.evaluate import EvaluationRequest, evaluate
from scaling_fl.commands.export import ExportRequest, merge
from scaling_fl.commands.model import load_model
from scaling_fl.composition.prediction import predict
from scaling_fl.composition.restored import restore, settings_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.core.errors import UserError
from scaling_fl.runtime.tracking.places import open_saved
from tests.tiny_models import save_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
CHANGES: dict[str, Any] = {
    "num_clients": 5,
    "clients_per_round": 2,
    "adapter": {"kind": "lora", "rank": 2, "alpha": 8.0},
    "max_seq_len": 16,
    "learning_rate": 0.05,
}


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.randint(3, 13, (4, 8), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found


@pytest.fixture(params=["exact", "stack"])
def run(request: pytest.FixtureRequest, corpus: Path, tmp_path: Path) -> QuickRun:
    """Three rounds of two clients each on GPT-2, whose weights are stored as (in x out)."""
    model = str(save_model("gpt2", tmp_path / "model"))
    changes = CHANGES | {"model": model, "merge": {"method": request.param}}
    return QuickRun(tmp_path / "run", shared=corpus, **changes).start_here()


def test_every_round_is_evaluated_to_the_bits_that_it_reported(run: QuickRun) -> None:
    curves = run.results()
    for number in (1, 2, 3):
        place = f"{run.checkpoints}/round-{number:06d}"
        found = evaluate(EvaluationRequest(checkpoint=place)).overall
        for name, value in found.items():
            steps, values = curves[name]
            assert value == values[steps.index(number)], name
    assert len(set(curves["validation.loss"][1])) == 3


def test_bytes_and_checkpoints_are_as_predicted(run: QuickRun) -> None:
    predicted = predict(run.config, lambda text: None)
    assert run.results()["bytes.download"][1] == predicted.download_bytes
    assert len(set(predicted.download_bytes)) > 1
    tensors = [*run.state(3).values(), *run.state(3, "optimiser").values()]
    assert sum(tensor.nbytes for tensor in tensors) == predicted.checkpoint_bytes


def test_they_are_where_clients_hold_the_largest_components_of_each_pair(
    corpus: Path, tmp_path: Path
) -> None:
    changes = CHANGES | {"model": str(save_model("gpt2", tmp_path / "model"))}
    changes |= {"tiers": [{"rank": 1}, {}], "tier_ranks": "largest", "num_rounds": 4}
    run = QuickRun(tmp_path / "run", shared=corpus, merge={"method": "exact"}, **changes)
    run.start_here()
    predicted = predict(run.config, lambda text: None)
    assert run.results()["bytes.download"][1] == predicted.download_bytes
    tensors = [*run.state(4).values(), *run.state(4, "optimiser").values()]
    assert sum(tensor.nbytes for tensor in tensors) == predicted.checkpoint_bytes


def test_an_exported_model_answers_as_the_federations_does(run: QuickRun, tmp_path: Path) -> None:
    saved = open_saved(str(run.checkpoints), lambda text: None)
    config = settings_of(saved, {})
    held = restore(saved, config, make_task(config), torch.device("cpu"))
    expected = logits(held.model)
    held.base.move_to(None)
    assert not torch.allclose(logits(held.model), expected, atol=1e-3)
    assert torch.allclose(logits(load_model(str(run.checkpoints))), expected, atol=1e-5)
    merge(ExportRequest(checkpoints=[str(run.checkpoints)], out=tmp_path / "out"))
    exported = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(exported), expected, atol=1e-5)


def test_the_mean_of_states_has_the_mean_of_their_bases(run: QuickRun, tmp_path: Path) -> None:
    """Of two states whose adapters are equal, the mean is the mean of the weights."""
    places = [f"{run.checkpoints}/round-{number:06d}" for number in (2, 3)]
    request = ExportRequest(checkpoints=places, weights=[3.0, 1.0], out=tmp_path / "mean")
    merge(request)
    name = "transformer.h.0.attn.c_attn"
    found = load_file(tmp_path / "mean" / "model.safetensors")[f"{name}.weight"]
    assert found.shape == (16, 48)
    states = [open_saved(place, lambda text: None) for place in places]
    config = settings_of(states[0], {})
    held = [restore(s, config, make_task(config), torch.device("cpu")) for s in states]
    layers: list[Any] = [each.model.get_submodule(name) for each in held]
    bases = [layer.get_base_layer().weight for layer in layers]
    a, b = (
        0.75 * getattr(layers[0], which)["default"].weight
        + 0.25 * getattr(layers[1], which)["default"].weight
        for which in ("lora_A", "lora_B")
    )
    expected = 0.75 * bases[0] + 0.25 * bases[1] + 4.0 * (b @ a).T
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_adapter_alone_is_neither_exported_nor_started_from(
    run: QuickRun, corpus: Path, tmp_path: Path
) -> None:
    place = str(run.checkpoints)
    with pytest.raises(UserError, match=r"whose base model stayed as it was.*drop --adapter"):
        merge(ExportRequest(checkpoints=[place], out=tmp_path / "adapter", adapter=True))
    changes = CHANGES | {"model": run.config.model, "init_from": place}
    with pytest.raises(UserError, match="init_from must be of a job whose base model stayed"):
        QuickRun(tmp_path / "next", shared=corpus, **changes).start_here()


def test_another_merge_goes_on_with_the_base_as_it_is(run: QuickRun, corpus: Path) -> None:
    moved = run.state(3, "optimiser")["memory.base.moved"]
    changes = CHANGES | {"model": run.config.model, "num_rounds": 5}
    further = QuickRun(run.folder, shared=corpus, **changes).start_here()
    assert torch.equal(further.state(5, "optimiser")["memory.base.moved"], moved)
    assert "memory.base.factors" not in further.state(5, "optimiser")
    found = evaluate(EvaluationRequest(checkpoint=str(run.checkpoints))).overall
    assert found["validation.loss"] == further.results()["validation.loss"][1][-1]


def test_rounds_that_draw_nobody_move_nothing(corpus: Path, tmp_path: Path) -> None:
    changes = CHANGES | {"clients_per_round": 1, "sampling": "poisson", "num_rounds": 6}
    changes |= {"model": "tiny", "merge": {"method": "exact"}}
    whole = QuickRun(tmp_path / "whole", shared=corpus, **changes).start_here()
    predicted = predict(whole.config, lambda text: None)
    assert whole.results()["bytes.download"][1] == predicted.download_bytes
    assert 0.0 in predicted.download_bytes
    parts = QuickRun(tmp_path / "parts", shared=corpus, **changes)
    parts.start_here(stop_after=3)
    resumed = QuickRun(tmp_path / "parts", shared=corpus, site_ids=[0, 1], **changes).start_here()
    assert resumed.digest == whole.digest

"""The client: plain PyTorch over the batches that the engine would draw, kept in the process."""

import json
import statistics
from functools import cache

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.nn.functional import cross_entropy

from scaling_fl.composition.data import Data, load_data
from scaling_fl.config import read_config
from scaling_fl.core.seeding import derive, numpy_generator
from scaling_fl.learning.training.batches import epoch_batches

app = ClientApp()


@cache
def _data(settings: str, num_clients: int) -> tuple[Data, torch.nn.Module]:
    torch.set_num_threads(1)
    data = load_data(read_config(json.loads(settings)), num_clients, lambda text: None)
    return data, data.task.load_model()


@app.train()  # type: ignore[untyped-decorator, unused-ignore]
def train(message: Message, context: Context) -> Message:
    """Train on the partition of the node, from the arrays of the message."""
    settings = str(context.run_config["settings"])
    data, model = _data(settings, int(context.run_config["num-clients"]))
    config = read_config(json.loads(settings))
    number = int(message.content["config"]["server-round"])
    client = int(context.node_config["partition-id"])
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    model.train()
    orders = epoch_batches(
        data.train.lengths,
        data.partitions[client],
        batch_size=config.batch_size,
        rng=numpy_generator(config.seed, "order", number, client, 0),
    )
    torch.manual_seed(derive(config.seed, "dropout", number, client))  # the engine's masks
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=0.0, fused=True
    )
    losses = []
    for batch in map(data.train.batch, orders):
        ids, mask = batch.tensors["input_ids"], batch.tensors["attention_mask"]
        logits = model(input_ids=ids, attention_mask=mask).logits
        loss = cross_entropy(logits, batch.tensors["labels"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    found = {"loss": statistics.fmean(losses), "num-examples": len(data.partitions[client])}
    records = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(found)}
    return Message(RecordDict(records), reply_to=message)

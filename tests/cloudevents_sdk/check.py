"""The other side of tests/cloudevents_sdk.rs: the CloudEvents project's own SDK reads and writes events.

Reads one JSON document from standard input: a list of messages, each with content_type, headers and body.
Writes one JSON document: "read", what the SDK finds in each message, once per protocol binding, and "written",
the messages that the SDK makes of one trucker.created event, once per binding and content mode.
"""

import base64
import json
import sys
from datetime import datetime, timezone

from cloudevents.core.bindings import amqp, http, rabbitmq
from cloudevents.core.v1.event import CloudEvent


def shown(event):
    """An event as JSON, its time in the form that the service writes."""
    attributes = dict(event.get_attributes())
    time = attributes["time"].astimezone(timezone.utc)
    attributes["time"] = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"attributes": attributes, "data": event.get_data()}


def read(message):
    """The same message as a webhook, as RabbitMQ delivers it, and as AMQP 1.0 does."""
    content_type, headers = message["content_type"], message["headers"]
    body = message["body"].encode()
    webhook = http.HTTPMessage(headers={"Content-Type": content_type}, body=body)
    delivery = rabbitmq.RabbitMQMessage(headers=headers, content_type=content_type, body=body)
    transfer = amqp.AMQPMessage(
        properties={"content-type": content_type}, application_properties=headers, application_data=body
    )
    return {
        "http": shown(http.from_http_event(webhook)),
        "rabbitmq": shown(rabbitmq.from_rabbitmq_event(delivery)),
        "amqp": shown(amqp.from_amqp_event(transfer)),
    }


def message(transport, content_type, headers, body):
    """A message as the Rust side reads it: names and values of headers are text."""
    pairs = [[name, str(value)] for name, value in headers.items() if name.lower() != "content-type"]
    body = body.encode() if isinstance(body, str) else body
    encoded = base64.b64encode(body).decode()
    return {"transport": transport, "content_type": content_type, "headers": pairs, "body": encoded}


def written():
    """One event by every binding in both modes. Its id and source need encoding in a header."""
    event = CloudEvent(
        attributes={
            "id": 'évt "1" 100% €',
            "source": "/platform?région=sud",
            "type": "trucker.created",
            "specversion": "1.0",
            "subject": "23498",
            "time": datetime(2025, 7, 11, 18, 55, 8, 628000, tzinfo=timezone.utc),
            "datacontenttype": "application/json",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        },
        data={"trucker": {"pk": 23498, "remote_id": "DRV-0042"}},
    )
    messages = {}
    for mode in ("structured", "binary"):
        made = getattr(http, f"to_{mode}_event")(event)
        content_type = {name.lower(): value for name, value in made.headers.items()}.get("content-type")
        messages[f"http {mode}"] = message("http", content_type, made.headers, made.body)
        made = getattr(rabbitmq, f"to_{mode}_event")(event)
        messages[f"rabbitmq {mode}"] = message("amqp", made.content_type, made.headers, made.body)
        made = getattr(amqp, f"to_{mode}_event")(event)
        messages[f"amqp {mode}"] = message(
            "amqp", made.properties.get("content-type"), made.application_properties, made.application_data
        )
    return messages


json.dump({"read": [read(given) for given in json.load(sys.stdin)], "written": written()}, sys.stdout)

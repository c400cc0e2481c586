"""The routes of bridges and of the subscriptions to them."""

from typing import Final

from server.api import bridges, subscriptions
from server.api.route import Route

BRIDGES: Final = (
    Route(
        "GET", "/api/tasks/{id}/notifications/bridges", subscriptions.list_subscriptions,
        "tasks.list_subscriptions", errors=("task_not_found",),
    ),
    Route(
        "POST", "/api/tasks/{id}/notifications/bridges", subscriptions.create_subscription,
        "tasks.create_subscription", "OM", (201, 200), keyed=True, operator=True,
        errors=(
            "task_not_found", "bridge_not_found", "subscription_exists", "subscription_not_found",
        ),
    ),
    Route(
        "GET", "/api/tasks/{id}/notifications/bridges/{subscription_id}",
        subscriptions.get_subscription, "tasks.get_subscription",
        errors=("task_not_found", "subscription_not_found"),
    ),
    Route(
        "DELETE", "/api/tasks/{id}/notifications/bridges/{subscription_id}",
        subscriptions.delete_subscription, "tasks.delete_subscription", "OM", (204,),
        operator=True, errors=("task_not_found", "subscription_not_found"),
    ),
    Route("GET", "/api/bridges", bridges.list_bridges, "bridges.list", "OM", operator=True),
    Route(
        "POST", "/api/bridges", bridges.create_bridge, "bridges.create", "OM", (201,),
        keyed=True, operator=True,
        errors=("bridge_exists", "bridge_url_refused", "bridge_not_found"),
    ),
    Route(
        "GET", "/api/bridges/{id}", bridges.get_bridge, "bridges.get", "OM", operator=True,
        errors=("bridge_not_found",),
    ),
    Route(
        "PATCH", "/api/bridges/{id}", bridges.patch_bridge, "bridges.update", "OM",
        operator=True, errors=("bridge_not_found", "bridge_exists", "bridge_url_refused"),
    ),
    Route(
        "DELETE", "/api/bridges/{id}", bridges.delete_bridge, "bridges.delete", "OM", (204,),
        operator=True, errors=("bridge_not_found",),
    ),
    Route(
        "GET", "/api/bridges/{id}/deliveries", bridges.list_deliveries, "bridges.deliveries",
        "OM", operator=True, errors=("bridge_not_found",),
    ),
)  # fmt: skip

"""The order saga, in Python: OrderProcessingSaga(...).start() or await OrderProcessingSaga(...).execute()."""

from orders.order_processing.main import (
    CAPTURING_SAGA,
    HANDED_OVER,
    ORDER_SAGA,
    OrderProcessingSaga,
    OrderResult,
    current_saga,
)

__all__ = [
    "CAPTURING_SAGA",
    "HANDED_OVER",
    "ORDER_SAGA",
    "OrderProcessingSaga",
    "OrderResult",
    "current_saga",
]

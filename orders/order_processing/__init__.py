"""The order saga, in Python: OrderProcessingSaga(...).start() or await OrderProcessingSaga(...).execute()."""

from orders.order_processing.main import ORDER_SAGA, OrderProcessingSaga, OrderResult

__all__ = ["ORDER_SAGA", "OrderProcessingSaga", "OrderResult"]

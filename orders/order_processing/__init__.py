"""The order saga, in Python: OrderProcessingSaga(...).start() or await OrderProcessingSaga(...).execute()."""

from orders.order_processing.main import HANDED_OVER, ORDER_SAGA, OrderProcessingSaga, OrderResult

__all__ = ["HANDED_OVER", "ORDER_SAGA", "OrderProcessingSaga", "OrderResult"]

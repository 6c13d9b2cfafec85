// A caller of the API in TypeScript. Types come from the OpenAPI document alone; the compiler checks each use of them.
// Called as: node client.js BASE_URL TOKEN. Prints what it saw as one line of JSON.
import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };
const [baseUrl, token] = process.argv.slice(2);
const api = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

const order: components["schemas"]["NewOrder"] = {
  order_id: "ORD-123",
  user_id: "USER-456",
  items: [
    { sku: "ITEM-001", quantity: 2 },
    { sku: "ITEM-002", quantity: 1 },
  ],
  total_amount: { amount: "99.99", currency: "EUR" },
  email: "ada@example.com",
  shipping_address: { name: "Ada Pereira", line1: "Torstraße 1", city: "Berlin", postcode: "10115", country: "DE" },
  payment: { token: "tok_visa" },
};
const once = { header: { "Idempotency-Key": "k-1" } };
const one = { path: { order_id: "ORD-123" } };

const placed = await api.POST("/api/v1/orders", { params: once, body: order });
const again = await api.POST("/api/v1/orders", { params: once, body: order });
const read = await api.GET("/api/v1/orders/{order_id}", { params: one });
const listed = await api.GET("/api/v1/orders", { params: { query: { state: "pending" } } });
const refused = await api.POST("/api/v1/orders", {
  params: { header: { "Idempotency-Key": "k-2" } },
  body: { ...order, order_id: "ORD-124", email: "nobody" },
});
const missing = await api.GET("/api/v1/orders/{order_id}", { params: { path: { order_id: "ORD-404" } } });

console.log(
  JSON.stringify({
    placed: [placed.response.status, placed.data?.order_id, placed.data?.state],
    again: [again.response.status, again.response.headers.get("Idempotent-Replayed")],
    read: [read.data?.total_amount.amount, read.data?.run?.steps.map((step) => step.name)],
    listed: listed.data?.results.map((row) => row.order_id),
    refused: [refused.error?.status, refused.error?.errors?.map((field) => field.pointer)],
    missing: [missing.error?.status, missing.error?.code],
  }),
);

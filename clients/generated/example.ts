// Asks martd with openapi-fetch, typed by what openapi-typescript made of /openapi.json.
import createClient from "openapi-fetch";
import type { paths } from "./martd.js";

declare const process: { argv: string[] };

// An answer can have several formats. The second argument says which are asked for, so that data is rows.
type Json = "application/json" | "application/problem+json";
const client = createClient<paths, Json>({ baseUrl: process.argv[2] });

const { data, error } = await client.POST("/v1/query", {
  body: { sql: "SELECT i, note FROM mart.sales WHERE i < $n ORDER BY i", params: { n: 2 } },
});
if (error) throw new Error(error.detail);
const notes: unknown[] = data.data.map((row) => row["note"]);
const truncated: boolean = data.truncated;

const got = await client.GET("/v1/query", {
  params: { query: { sql: "SELECT $n + 1 AS n", params: JSON.stringify({ n: 1 }), limit: 5 } },
});
const wrong = await client.POST("/v1/query", { body: { sql: "SELECT nope FROM mart.sales" } });
const problem: string | undefined = wrong.error?.type;

const { data: listing } = await client.GET("/v1/datasets");
const options: unknown[][] = listing!.datasets.flatMap((each) => each.filters.enum_filters.map((filter) => filter.options));
const { data: schema } = await client.GET("/v1/datasets/{id}/schema", { params: { path: { id: "sales" } } });
const columns: string[] = schema!.columns.map((column) => column.name);
const { data: freshness } = await client.GET("/v1/freshness");

console.log(JSON.stringify({
  notes, truncated, got: got.data?.data, problem, options, columns, status: freshness!.status,
}));

"""An application that takes connections from its database module, and cursors from those.

It knows nothing of martd: only `get_connection` says where the data are. Its one precaution is the file
that may not be there yet.
"""

import csv
import io
import uuid

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse


def create_app(get_connection):
    app = FastAPI()

    @app.get("/spending")
    def spending(user_id: uuid.UUID, tags: int = 3):
        query = """
            SELECT tag_name, sum(-amount) AS "Spent", count(*) AS times, max(transaction_date) AS last
            FROM mart.fct_transactions WHERE user_id = $user_id AND transaction_type = 'expense'
            GROUP BY ALL ORDER BY "Spent" DESC, tag_name LIMIT $tags
        """
        with get_connection() as connection:
            cursor = connection.execute(query, {"user_id": user_id, "tags": tags})
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    @app.get("/transactions.csv")
    def transactions(user_id: uuid.UUID):
        """In pieces, as those do that fear for their memory; closed by hand."""
        connection = get_connection()
        try:
            connection.execute("SELECT * FROM mart.fct_transactions WHERE user_id = ? ORDER BY ALL", [user_id])
            out = io.StringIO()
            lines = csv.writer(out)
            lines.writerow(column[0] for column in connection.description)
            while rows := connection.fetchmany(100):
                lines.writerows(rows)
        finally:
            connection.close()
        return Response(out.getvalue(), media_type="text/csv")

    @app.get("/balances")
    def balances(user_id: uuid.UUID):
        """Several cursors of one connection, and a frame."""
        with get_connection() as connection:
            accounts = connection.cursor()
            accounts.execute("SELECT account_id, account_name FROM mart.dim_accounts WHERE user_id = $1 ORDER BY ALL", [user_id])
            found = {}
            while (row := accounts.fetchone()) is not None:
                history = connection.cursor().execute(
                    "SELECT balance_date, balance FROM mart.fct_daily_balance_history WHERE account_id = $1 ORDER BY ALL", [row[0]]
                )
                frame = history.df()
                found[row[1]] = [len(frame), str(frame.balance_date.max()), frame.balance.sum()]
            return found

    @app.get("/ready")
    def ready():
        with get_connection() as connection:
            return connection.execute("SELECT count(*) > 0 FROM mart.dim_accounts").fetchone()[0]

    @app.exception_handler(FileNotFoundError)
    def not_there(_, error):
        return JSONResponse({"detail": "no data yet"}, 503)

    return app

import React, { useEffect, useMemo, useState } from "react";
import type { Invoice, SortKey } from "./types";

interface Props {
  invoices: Invoice[];
  onSelect: (id: string) => void;
  pageSize?: number;
}

export function InvoiceTable({ invoices, onSelect, pageSize = 20 }: Props) {
  const [sort, setSort] = useState<SortKey>("date");
  const [page, setPage] = useState(0);

  useEffect(() => {
    setPage(0);
  }, [invoices]);

  const sorted = useMemo(() => {
    const copy = [...invoices];
    copy.sort((a, b) => (a[sort] < b[sort] ? -1 : 1));
    return copy;
  }, [invoices, sort]);

  const shown = sorted.slice(page * pageSize, (page + 1) * pageSize);

  return (
    <table className="invoices">
      <thead>
        <tr>
          <th onClick={() => setSort("date")}>Date</th>
          <th onClick={() => setSort("name")}>Name</th>
          <th onClick={() => setSort("total")}>Total</th>
        </tr>
      </thead>
      <tbody>
        {shown.map((invoice) => (
          <tr key={invoice.id} onClick={() => onSelect(invoice.id)}>
            <td>{invoice.date}</td>
            <td>{invoice.name}</td>
            <td>{invoice.total.toFixed(2)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

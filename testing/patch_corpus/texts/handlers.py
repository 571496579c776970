from .store import InvoiceStore


def list_invoices(request, store: InvoiceStore):
    page = int(request.args.get("page", 1))
    if page < 1:
        return {"error": "page must be positive"}, 400
    return {"items": store.page(page)}, 200


def get_invoice(request, store: InvoiceStore, key):
    item = store.get(key)
    if item is None:
        return {"error": "not found"}, 404
    return {"item": item}, 200


def delete_invoice(request, store: InvoiceStore, key):
    item = store.get(key)
    if item is None:
        return {"error": "not found"}, 404
    store.delete(key)
    return {"deleted": key}, 200


def update_invoice(request, store: InvoiceStore, key):
    item = store.get(key)
    if item is None:
        return {"error": "not found"}, 404
    changes = request.json
    if not changes:
        return {"error": "nothing to change"}, 400
    store.update(key, changes)
    return {"item": store.get(key)}, 200


def count_invoices(request, store: InvoiceStore):
    total = 0
    for item in store.all():
        if item.open:
            total += 1
        else:
            if item.late:
                total += 1
    return {"count": total}, 200

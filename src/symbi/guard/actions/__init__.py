"""Actions by enforcement point; `symbi.guard.action` names all of them."""

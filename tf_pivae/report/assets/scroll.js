// A table that fits is no stop of the tab key; one that is wider than the page scrolls inside itself, and is one.
{
  const check = ({ target }) => {
    if (target.scrollWidth > target.clientWidth) target.setAttribute("tabindex", "0");
    else target.removeAttribute("tabindex");
  };
  const observer = new ResizeObserver((entries) => entries.forEach(check));
  document.querySelectorAll(".scroll").forEach((element) => observer.observe(element));
}
